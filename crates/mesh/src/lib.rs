//! notifyx-mesh
