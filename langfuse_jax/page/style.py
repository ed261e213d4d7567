"""How the page looks, and what its script does before a file leaves the browser."""

from langfuse_jax.page.load import MAX_BYTES

CSS = """
.note:not(:has(p)), #metrics:not(:has(td)) { display: none; }
.note, .note > :not(p), #metrics, #metrics > * { padding: 0 !important; }
.note p { margin: 0 !important; padding: .35em .6em; border-left: 3px solid; font-size: .9em; line-height: 1.35;
  overflow-wrap: anywhere; }
p.mistake { color: #b3261e; border-color: #b3261e; background: #b3261e14; }
p.remark { color: #8a5a00; border-color: #8a5a00; background: #8a5a0014; }
p.verdict { color: #1b6e3c; border-color: #1b6e3c; background: #1b6e3c14; }
p.plain { border-color: #8888; white-space: pre-line; }
.dark p.mistake { color: #ffb4ab; } .dark p.remark { color: #f0c66b; } .dark p.verdict { color: #8fd7a8; }
p.local { margin: 0; padding: .35em .6em; border-left: 3px solid; font-size: .9em; }
#metrics table { width: 100%; border-collapse: collapse; position: relative; font-size: .92em; }
#metrics :is(table, thead, tbody, tr) { border: 0 !important; }
#metrics table :is(th, td) { padding: .3em .4em; text-align: right; white-space: nowrap; border: solid #8884 !important;
  border-width: 0 0 1px !important; }
#metrics table th:first-child { text-align: left !important; white-space: normal; font-weight: 500; }
#metrics small { opacity: .75; margin-left: .6em; }
.tip { cursor: help; text-decoration: underline dotted; }
.tip > span { display: none; position: absolute; left: 0; right: 0; z-index: 5; margin-top: 1.5em; padding: .5em .7em;
  border-radius: 6px; background: #222; color: #fff; font-weight: 400; white-space: normal;
  text-align: left; }
.tip:hover > span, .tip:focus > span { display: block; }
@media (max-width: 640px) {
  #metrics small { display: block; margin-left: 0; }
  .gradio-container { padding: 8px !important; }
}
"""

# A file that is too large is refused beside its field: the server's own refusal would be a message that fades.
SCRIPT = """
() => {
  const limit = LIMIT, fields = '#visible, #infrared, #many_visible, #many_infrared';
  const say = (field, text) => {
    let note = document.getElementById(field.id + '_bytes');
    if (!note) {
      note = document.createElement('p');
      note.id = field.id + '_bytes';
      note.setAttribute('role', 'alert');
      field.insertAdjacentElement('afterend', note);
    }
    note.className = text ? 'mistake local' : '';
    note.textContent = text;
  };
  const look = (event, files) => {
    const field = event.target.closest && event.target.closest(fields);
    if (!field || !files || !files.length) return;
    const large = [...files].find(file => file.size > limit);
    say(field, large ? `${large.name}: is over ${limit / 2 ** 20} MiB; make it smaller.` : '');
    if (!large) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.type === 'change') event.target.value = '';
  };
  document.addEventListener('change', event => event.target.type === 'file' && look(event, event.target.files), true);
  document.addEventListener('drop', event => look(event, event.dataTransfer.files), true);
}
""".replace("LIMIT", str(MAX_BYTES))
