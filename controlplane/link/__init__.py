"""The link between web processes and the engine's process, over Redis: the scaled half of `front.Front`.

    web process                       Redis                                  engine process
    RemoteFront ── LinkClient ──▶ stream "engine" (one a node group) ──▶ LinkServer ── Service
                              ◀── stream "web:ID" (one a web process) ◀──
                                    key "lease": who is the active engine, and its epoch

Rule: what may be lost (a process, a message, Redis with all it holds) is found within seconds, because each web process
says every second which requests it has open, and the engine which of those it does not know. A request then ends with
a clear error, or is submitted again if nothing of its answer was shown. docs/scaled.md has the whole story.
"""
