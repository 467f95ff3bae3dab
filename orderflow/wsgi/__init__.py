"""What both HTTP services share: problems, guards, probes, metrics, and the server.

`service` ties them to a Bottle application; `serve` runs it on granian.
"""
