"""Parts of the composition root: each module wires the objects of one area."""
