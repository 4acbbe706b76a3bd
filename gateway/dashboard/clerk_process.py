"""What the gateway starts beside itself: `python -m gateway.dashboard.clerk_process mixgate.db`. Nobody else does."""

import signal


def main() -> None:
    """Be the clerk."""
    # Ctrl-C at a terminal comes to all of the gateway's processes; this one ends with its stdin. Said before anything
    # large is loaded, which takes long enough for somebody to press it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from gateway.dashboard.clerk import main as work  # noqa: PLC0415 (for the reason above)

    work()


if __name__ == "__main__":
    main()
