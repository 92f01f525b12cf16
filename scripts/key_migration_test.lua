test("an old prefix becomes the new one", function()
	local out = publish { routing_key = "order.created.eu" }
	expect(out.routing_key):equals("shop.orders.created.eu")
	expect(out.headers["x-old-routing-key"]):equals("order.created.eu")
	expect(publish({ routing_key = "order" }).routing_key):equals("shop.orders")
end)

test("the longest prefix counts", function()
	expect(publish({ routing_key = "order.cancel" }).routing_key):equals("shop.cancellations")
	expect(publish({ routing_key = "order.cancel.late" }).routing_key):equals("shop.cancellations.late")
end)

test("a prefix ends with a word", function()
	for _, key in { "orders.created", "user", "user.signups", "", ".", "other" } do
		local out = publish { routing_key = key }
		expect(out.routing_key):equals(key)
		expect(out.headers):equals({})
	end
end)
