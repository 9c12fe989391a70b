"""What the library costs and what it saves, beside its peers: `python -m benchmarks`.

Each part measures in one run, with what is compared taking turns. The figure to read is a ratio of such neighbours;
microseconds are those of the machine. `report.py` makes the table and the plots of what the parts found.
"""
