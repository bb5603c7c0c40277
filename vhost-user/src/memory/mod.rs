//! Of vhost-user: memory.
