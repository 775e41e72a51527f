"""The program: `fieldmark`, or `python -m fieldmark`."""

import gc


def main() -> None:
    """Run the command line. Modules are loaded, and left at the end, without a search for garbage among their
    objects, which takes two fifths of the time that the answer for one photo takes."""
    gc.disable()  # until a command begins: `cli.help.Command`
    from fieldmark.cli import main as command_line

    try:
        command_line()
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()
