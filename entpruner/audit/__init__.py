"""What score, proxies and schedule are worth: sub-networks measured on equal terms, and statistics that know noise."""
