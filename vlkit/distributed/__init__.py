"""The processes of a job: device, ranks, what they say to each other, how a model is cut into pieces."""
