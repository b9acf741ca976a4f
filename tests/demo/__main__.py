"""`python -m tests.demo`: play the demo once, or keep it running."""

import signal

if __name__ == "__main__":
    # During the imports Ctrl-C would print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tests.demo.command import main

    main()
