local SECRET = { Authorization = "Bearer x", ["x-api-key"] = "k", ["x-card"] = "4111111111111111", ["x-tenant"] = "acme" }
local OPEN = { ["x-card"] = "************1111", ["x-tenant"] = "acme" }

test("consumers do not see secrets", function()
	expect(deliver({ user = "alice", headers = SECRET }).headers):equals(OPEN)
end)

test("some see everything", function()
	expect(deliver({ user = "audit", headers = SECRET }).headers):equals(SECRET)
end)

test("publishes are redacted for everybody", function()
	expect(publish({ user = "audit", headers = SECRET }).headers):equals(OPEN)
end)

test("messages without secrets stay as they are", function()
	local headers = { ["x-card"] = "1111", other = { 1, 2 } }
	expect(deliver({ headers = headers }).headers):equals(headers)
	expect(deliver({}).headers):equals({})
end)
