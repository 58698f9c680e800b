"""What is measured: experiments, the harness, statistics, reports, the command line."""
