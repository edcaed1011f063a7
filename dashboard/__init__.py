"""Pages, Channels consumers and figures. May import `controlplane`; nothing imports it but the routes."""
