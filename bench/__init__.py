"""What a request costs in Mixgate and in other gateways, side by side: `python -m bench`. See bench/README.md."""
