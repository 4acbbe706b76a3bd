"""What a browser sees of the gateway: sign-in, figures as JSON and CSV, and the pages over them."""
