"""How many instructions the hot paths take. They repeat exactly, however busy the machine is."""
