"""Pages. Each is rendered on the server with what it needs to be useful at once; live parts fill from the channel.

Rule: a page only asks and shows; what it changes goes through `controlplane`. Must not know: how the engine works.
"""
