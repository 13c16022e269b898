"""The queue of every destination in this process: what may be sent now, and what waits for what.

Open `lanes` first, which has a lane for each destination; `queue` is the queue in it, `places` counts what is held, `lane_breaker` and `cooling` hold it back, `quota`,
`held_bytes` and `turns` share out sockets, bytes and time between all. It must not know how a delivery is sent or stored.
"""
