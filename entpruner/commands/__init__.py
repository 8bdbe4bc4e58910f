"""The commands of the rules, a module for each. ``run`` takes the settings of the rule, and its paths as keywords."""
