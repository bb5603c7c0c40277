//! Of vhost-user: ring.
