"""From a request to a tree that is ready to be sampled: what is asked, what is refused, the plan.

The plan has the journal, in which the growth of the tree is written down for the response. Nothing
here starts anything or needs a route.
"""
