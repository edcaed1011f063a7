"""The virtual clock: the production scheduler and its rivals on one modelled machine, side by side."""
