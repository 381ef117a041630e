from lground.cli import run

run()
