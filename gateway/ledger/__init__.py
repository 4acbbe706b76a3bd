"""What every Attempt cost: written down before it is sent, settled once, never lost and never counted twice."""
