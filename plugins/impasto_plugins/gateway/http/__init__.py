"""HTTP below the endpoints: connections, bodies, forms, uploads, memory budget."""
