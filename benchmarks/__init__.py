"""What the library costs and what it saves, beside its peers: `python -m benchmarks`.

Each part measures in one run, with what is compared taking turns. The figure to read is a ratio of such neighbours;
microseconds hold for this machine only. `report.py` makes the table and the plots of what the parts found.
"""
