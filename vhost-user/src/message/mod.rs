//! Of vhost-user: message.
