"""The audit: what score, proxies and schedule are worth, by sub-networks measured on equal terms."""
