"""Random inputs for every parser of the catalog: what each is given, and what must hold of its answer."""
