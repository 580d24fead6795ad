"""What a model gets right: a hundred items of each of four tasks of our own, the same for every model."""
