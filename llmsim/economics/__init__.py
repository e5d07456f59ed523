"""What training costs: time, money, energy, carbon; and which model a budget is worth."""
