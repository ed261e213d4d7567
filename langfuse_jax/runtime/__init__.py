"""What runs around the work: whole files, threads, compiled programs, processes of a cluster."""
