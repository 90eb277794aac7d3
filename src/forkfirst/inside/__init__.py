"""What a program may do while it runs, with a runtime alive: have a service, and talk to it."""
