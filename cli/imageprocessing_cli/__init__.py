"""ipr, for people; also the kubectl plugin kubectl-ipr."""
