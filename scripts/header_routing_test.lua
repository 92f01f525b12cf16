test("the key begins with the headers", function()
	local out = publish { routing_key = "order.created", headers = { ["x-region"] = "eu", ["x-class"] = "gold" } }
	expect(out):passes()
	expect(out.routing_key):equals("eu.gold.order.created")
	expect(out.headers):equals({ ["x-region"] = "eu", ["x-class"] = "gold" })
end)

test("a header that is missing counts as none", function()
	expect(publish({ routing_key = "a", headers = { ["x-class"] = 7 } }).routing_key):equals("none.7.a")
	expect(publish({ routing_key = "a" }).routing_key):equals("none.none.a")
end)

test("a header that would change what bindings match counts as none", function()
	for _, value in { "eu.west", "*", "#", "" } do
		expect(publish({ routing_key = "a", headers = { ["x-region"] = value } }).routing_key):equals("none.none.a")
	end
end)
