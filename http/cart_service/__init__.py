"""The producer's HTTP service: takes orders and status updates, publishes them, and answers what is true of them."""
