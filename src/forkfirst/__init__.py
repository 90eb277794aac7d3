"""forkfirst runs any async program as a well-behaved Unix service: first fork, then the runtime."""
