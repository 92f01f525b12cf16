test("header names the tenant", function()
	local out = publish { routing_key = "order.created", headers = { ["x-tenant"] = "acme" } }
	expect(out):passes()
	expect(out.routing_key):equals("acme.order.created")
end)

test("user names the tenant, and consumers see it in the header", function()
	local out = publish { routing_key = "order.created", user = "acme:alice" }
	expect(out.routing_key):equals("acme.order.created")
	expect(out.headers):equals({ ["x-tenant"] = "acme" })
end)

test("user and header may say the same", function()
	local out = publish { routing_key = "x", user = "acme:alice", headers = { ["x-tenant"] = "acme" } }
	expect(out.routing_key):equals("acme.x")
end)

test("user of one tenant does not publish for another", function()
	local out = publish { user = "acme:alice", headers = { ["x-tenant"] = "globex" } }
	expect(out):rejects("user 'acme:alice' does not publish for tenant 'globex'")
end)

test("message without a tenant is rejected", function()
	expect(publish { user = "guest" }):rejects("no tenant")
end)

test("tenant is one word of a routing key", function()
	for _, tenant in { "", "a.b", "#", "*", "a b", 5, { "acme" } } do
		expect(publish { headers = { ["x-tenant"] = tenant } }):rejects("a tenant is a word")
	end
end)

test("everything else stays", function()
	local out = publish { priority = 3, message_id = "7", headers = { ["x-tenant"] = "acme", retries = 2 } }
	expect(out.priority):equals(3)
	expect(out.message_id):equals("7")
	expect(out.headers.retries):equals(2)
end)
