"""The core shared by orderflow's services, workers and command line. It imports none of them."""
