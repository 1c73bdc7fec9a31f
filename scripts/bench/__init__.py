"""How fast kaivc is beside its peers: ``python -m scripts.bench``; what is measured is in docs/benchmarks/README.md."""
