"""Training: batches on the device, one step, the loop over epochs, several processes."""
