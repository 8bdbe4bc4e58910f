"""What a study means: its arms, and what each stage of the workflow makes of them."""
