import eventflows


@eventflows.subscriber("local://orders")
@eventflows.publisher("local://receipts")
def apply(order):
    return f"{order['item']}: {order['price'] * order['count']} paid"


tea, cup = {"item": "tea", "price": 3, "count": 2}, {"item": "cup", "price": 8, "count": 1}
eventflows.send("local://orders", tea, cup, key="table 4")
apply.run(until_idle=0.1)
for receipt in eventflows.open_subscriber("local://receipts").peek(10, timeout=1):
    print(receipt.message.body.decode())
