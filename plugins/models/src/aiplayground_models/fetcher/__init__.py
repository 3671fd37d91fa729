"""The process that talks to the Hub: one for each download, so that killing it ends it at once.

It reads one job as a line of JSON from its standard input, writes what happens as lines of JSON,
and ends when its input does: that is when its owner ends, however it went. The token comes with
the job alone, never in the arguments or the environment.
"""
