"""What finished studies have taught: training, judging, storing and registering priors."""
