"""What notebooks and benchmarks show: loss maps, tables and figures."""
