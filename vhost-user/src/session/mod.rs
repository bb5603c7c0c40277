//! Of vhost-user: session.
