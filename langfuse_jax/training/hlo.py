"""What a compiled program says of itself in its text: exchanges between devices, and bytes moved, loops included."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

_EXCHANGES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# What moves nothing.
_FREE_CALL = re.compile(r'custom_call_target="(AllocateBuffer|ConcatBitcast|Sharding)"')
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all iota partition-id replica-id opt-barrier".split()
)
_COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(
    r"\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<shape>\(.*?\)|\S+) (?P<kind>[\w\-]+)\((?P<rest>.*)$"
)
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:to_apply|branch_computations|\w+_computation)=\{?((?:%?[\w.\-]+,? ?)+)")
_CALLS, _BODY, _CONDITION = (re.compile(rf"\b{name}=%?([\w.\-]+)") for name in ("calls", "body", "condition"))
_NUMBER = re.compile(r"(\d+)\)")
_ARRAY = re.compile(r"\b(pred|[suf]\d+|bf16|c64|c128|f8\w*)\[([\d,]*)\](?:\{([\d,]*)(?::T\(([\d,]+)\))?)?")
# Arrays in the memory of the chip itself, which TPU's compiler marks, and what is then put before them.
_ON_CHIP, _MARK = re.compile(r"\b(\w+\[[\d,]*\]\{[^}]*S\(\d+\)\})"), "on_chip_"
_MARKED_ARRAY = re.compile(rf"({_MARK})?(\w+\[[\d,]*\](?:\{{[^}}]*\}})?)")
_SOURCE = re.compile(r'source_file="([^"]*)"(?: source_line=(\d+))?')
_OPERATION = re.compile(r'op_name="([^"]*)"')
_LEVELS = 3  # of an operation's name, from the innermost


class Instruction(NamedTuple):
    """One line of a program: `%name = shape kind(rest`."""

    name: str
    shape: str
    kind: str
    rest: str


Computation: TypeAlias = Mapping[str, Instruction]  # by their names, in order


class Collective(NamedTuple):
    """One exchange between devices.

    Attributes:
        kind: "all-reduce", "all-gather", "reduce-scatter", "all-to-all" or "collective-permute".
        bytes: of its result on one device, without what a memory layout adds.
        origin: the operation in the code, as JAX names it, and the line.
    """

    kind: str
    bytes: int
    origin: str


def collectives(text: str) -> list[Collective]:
    """The collectives of a compiled program, in order, from its text; those in a loop as often as it turns.

    >>> line = '%r = f32[4,2]{1,0} all-reduce(%p), metadata={op_name="jit(f)/add" source_file="a.py" source_line=7}'
    >>> collectives("ENTRY %main (p: f32[4,2]) -> f32[4,2] {\\n" + line + "\\n}")
    [Collective(kind='all-reduce', bytes=32, origin='jit(f)/add (a.py:7)')]
    """
    found = []
    for instruction, _, turns in _executed(_parsed(text)):
        kind = instruction.kind.removesuffix("-start")
        if kind in _EXCHANGES:
            arrays = _ARRAY.findall(instruction.shape)
            if instruction.kind in ("all-gather-start", "collective-permute-start"):
                # These also name their operands, first, and counters.
                arrays = [array for array in arrays if array[1]]
                arrays = arrays[len(arrays) // 2 :]
            found += turns * [Collective(kind, sum(map(_bytes, arrays)), _origin(instruction.rest))]
    return found


def bytes_accessed(text: str, *, on_chip: bool = True) -> int:
    """Bytes between memory and the arithmetic of a compiled program: what each instruction reads and writes.

    Without `on_chip`, only those in main memory.

    Counted as XLA's cost analysis does, but for loops, whose bodies count as often as they turn: there once. What
    layouts pad is moved too; of a slice, or what is replaced by one, only the slice is.

    >>> bytes_accessed("ENTRY %main (p: f32[4]) -> f32[4] {\\n%p = f32[4] parameter(0)\\n%r = f32[4] negate(%p)\\n}")
    32
    """
    program = _parsed(text if on_chip else _ON_CHIP.sub(rf"{_MARK}\1", text))
    return sum(
        turns * _moved(instruction, program[0][name], program[0]) for instruction, name, turns in _executed(program)
    )


def _moved(instruction: Instruction, among: Computation, computations: Mapping[str, Computation]) -> int:
    if instruction.kind in _FREE or instruction.kind.endswith("-done") or _FREE_CALL.search(instruction.rest):
        return 0
    if instruction.kind in ("copy-start", "slice-start"):
        # Their tuple has the copy and the operand, of which as much is read.
        both = _MARKED_ARRAY.findall(instruction.shape)[:2]
        return sum(not mark for mark, _ in both) * min(_padded(array) for _, array in both)
    read = sum(_read(instruction, place, among, computations) for place in range(len(_operands(instruction))))
    return read + _written(instruction, among, computations)


def _read(user: Instruction, place: int, among: Computation, computations: Mapping[str, Computation]) -> int:
    """Bytes of an operand that an instruction needs."""
    operand = among.get(_operands(user)[place])
    whole = _padded(operand.shape) if operand else 0
    if user.kind in ("dynamic-slice", "slice", "gather") and place == 0:
        return _padded(user.shape)
    if user.kind == "dynamic-update-slice" and place == 0:
        return 0
    called = _CALLS.search(user.rest)
    if user.kind != "fusion" or called is None:
        return whole
    inner = computations[called[1]]
    name = next((i.name for i in inner.values() if i.kind == "parameter" and i.rest.startswith(f"{place})")), "")
    uses = [(i, at) for i in inner.values() for at, operand in enumerate(_operands(i)) if operand == name]
    return min(whole, sum(_read(instruction, at, inner, computations) for instruction, at in uses))


def _written(instruction: Instruction, among: Computation, computations: Mapping[str, Computation]) -> int:
    """Bytes of an instruction's result that are new."""
    if instruction.kind in ("tuple", "bitcast"):
        made = [among[name] for name in _operands(instruction) if name in among]
        return sum(_written(part, among, computations) for part in made if part.kind != "parameter")
    if instruction.kind == "dynamic-update-slice":
        update = among.get(_operands(instruction)[1])
        return _padded(update.shape) if update else 0
    called = _CALLS.search(instruction.rest)
    if instruction.kind == "fusion" and called:
        inner = computations[called[1]]
        return _written(_root(inner), inner, computations)
    return _padded(instruction.shape)


def _root(computation: Computation) -> Instruction:
    return list(computation.values())[-1]


def _operands(instruction: Instruction) -> list[str]:
    return [] if instruction.kind in ("parameter", "constant") else _OPERAND.findall(instruction.rest.split("), ")[0])


def _executed(program: tuple[Mapping[str, Computation], str]) -> Iterator[tuple[Instruction, str, int]]:
    """Every instruction that runs by itself, its computation, and how often it runs."""
    computations, entry = program

    def walk(name: str, turns: int) -> Iterator[tuple[Instruction, str, int]]:
        for instruction in computations.get(name, {}).values():
            if instruction.kind == "while":
                condition, body = _CONDITION.search(instruction.rest), _BODY.search(instruction.rest)
                if condition and body:
                    yield from walk(body[1], turns * _turns(computations.get(condition[1], {})))
            elif instruction.kind in ("call", "conditional"):
                for called in _CALLED.findall(instruction.rest):
                    for part in called.split(","):
                        yield from walk(part.strip(" %"), turns)
            else:
                yield instruction, name, turns

    yield from walk(entry, 1)


def _turns(condition: Computation) -> int:
    """How often a loop of JAX's turns: from 0 up to the number that its condition compares with."""
    limits = [int(found[1]) for i in condition.values() if i.kind == "constant" and (found := _NUMBER.match(i.rest))]
    return max(limits, default=1)


def _parsed(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a program by their names, and the name of the one that it starts with.

    Of each the root is last: it is printed so.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", dict[str, Instruction]()
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            current = computations.setdefault(found["name"], {})
            entry = found["name"] if found["entry"] else entry
        elif found := _INSTRUCTION.match(line):
            current[found["name"]] = Instruction(*found.group("name", "shape", "kind", "rest"))
    return dict(computations), entry


def _padded(shape: str) -> int:
    """Bytes of the arrays in a shape, the last axes of each filled up to the tiles of its layout."""
    total = 0
    for kind, sides, order, tile in _ARRAY.findall(shape):
        lengths = _numbers(sides)
        physical = [lengths[axis] for axis in reversed(_numbers(order))] if order else lengths
        for i, length in enumerate(reversed(_numbers(tile)), 1):
            if i <= len(physical):
                physical[-i] = -(-physical[-i] // length) * length
        total += _bytes((kind, ",".join(map(str, physical)), "", ""))
    return total


def _bytes(array: tuple[str, str, str, str]) -> int:
    kind, sides = array[:2]
    bits = 8 if kind == "pred" or kind.startswith("f8") else int(re.sub(r"\D", "", kind))
    return bits * int(np.prod(_numbers(sides), dtype=np.int64)) // 8


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def _origin(line: str) -> str:
    name, source = _OPERATION.search(line), _SOURCE.search(line)
    parts = ["/".join(name[1].split("/")[-_LEVELS:])] if name else []
    if source:
        file = source[1].rpartition("/")[2]
        parts.append(f"({file}:{source[2]})" if source[2] else f"({file})")
    return " ".join(parts) or "unknown"
