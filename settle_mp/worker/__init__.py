"""The wing that lives inside the web worker: the client, its journal and its courier."""
