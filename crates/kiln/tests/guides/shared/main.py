import itsdangerous, click
print("signed", itsdangerous.Signer("k").sign("v").decode().split(".")[0])
