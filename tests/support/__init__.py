"""What cluster and e2e tests share."""
